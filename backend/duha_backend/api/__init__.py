"""The HTTP API: what is so (`now`), what was kept (`kept`), what is wanted (`wanted`)."""
