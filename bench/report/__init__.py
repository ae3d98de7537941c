"""What a run found, told to people: a page, a summary in Markdown, and the sentences they share."""
