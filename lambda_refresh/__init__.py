"""The Lambda function that notifies the service of changes in the store."""
