"""kopf, which watches our own kinds and passes on what it sees."""
