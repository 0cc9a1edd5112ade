"""A procedural world of scenes: pictures, masks, boxes, captions and questions with exact ground truth."""
