"""What single formats of images need beyond Pillow's reading of them, one module each."""
