"""Documents shown as their authors made them: pages as pictures, where a passage stands on them, search in them."""
