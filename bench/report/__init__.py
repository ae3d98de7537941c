"""Results for people: a page, a summary in Markdown, and the sentences they share."""
