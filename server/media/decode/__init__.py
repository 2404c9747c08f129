"""From bytes to pixels: images and video, run in the media workers only."""
