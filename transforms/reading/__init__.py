"""From input patterns to tables of encoded pairs: find files, cut them into chunks, read the chunks."""
