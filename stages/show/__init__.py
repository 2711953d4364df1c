"""Words, tables and pictures that stages and commands speak in: plain text, HTML and SVG."""
