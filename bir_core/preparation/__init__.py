"""Published sets of pictures, brought from their files to what a training reads."""
