"""The paper's printed numbers checked against each other and against its text."""
