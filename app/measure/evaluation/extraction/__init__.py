"""`eval documents`: whether the text of a document is read whole and in order, by us and by other readers."""
