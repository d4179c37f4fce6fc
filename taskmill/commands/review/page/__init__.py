"""The review page: addresses, who may ask, HTML, style and script."""
