"""What is left over: found, judged, and removed where nobody needs it any more."""
