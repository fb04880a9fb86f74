"""The pages of a PDF as text: pdfium's characters (characters), words, the order of columns and tables (layout), lines,
what repeats from page to page (running_lines), and paragraphs. `page` puts them together for one page.
"""
