"""What is computed from an index of images: clusters of equal and similar images, and its report."""
