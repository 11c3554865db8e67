"""The HTTP endpoints: parse the request, call one function, render the response."""
