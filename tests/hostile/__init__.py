"""What an image or a peer would send that means harm."""
