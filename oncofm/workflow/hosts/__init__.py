"""What starts the image and says by environment variables where the images are."""
