"""What people do with such a network: identify, review, count, find wrong labels, and more."""
