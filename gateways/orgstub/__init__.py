"""A stand-in for a Salesforce org: token endpoint, records, errors, limits and the callout of the Apex sample."""
