"""`eval`: how much the answers change when only the selected pages are read."""
