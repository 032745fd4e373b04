"""One grouping factor, or nested ones that are expanded to one: products by pattern of groups."""
