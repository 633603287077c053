"""CSV, COCO, folder or frame in; every problem by row with its remedy; a checked catalog out."""
