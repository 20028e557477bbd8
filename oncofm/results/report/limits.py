"""How much a report may hold, so that a browser can open it."""

MOST_CHARACTERS = 1000
"""Of a sentence or an attribute; what is cut is whole in the tables."""

MOST_NAME_CHARACTERS = 200
"""Of an identifier or a label."""

MOST_LESIONS = 5000
MOST_LEFT_OUT = 1000

MOST_PREVIEWS = 200
MOST_PREVIEW_BYTES = 8_000_000
"""Of all pictures together, as they stand in the page."""

MOST_REASONS = 200
MOST_EXAMPLES = 5
"""Of each reason, in the report of a batch."""

MOST_SENTENCE_CHARACTERS = 400
"""Of an example's sentence there."""

MOST_ATTEMPTS = 20

MOST_OUTPUTS = 30
"""Classes of a head."""
