"""What reports that are pages share: markup that is escaped, one style, charts. A page is one file, no scripts."""
