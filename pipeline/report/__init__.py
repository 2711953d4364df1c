"""What a run says of itself: summary, remarks, and the page."""
