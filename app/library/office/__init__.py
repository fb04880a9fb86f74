"""What the readers of Word, PowerPoint and OpenDocument files share: parts of the package, styles, layout, formulas."""
