"""CRM: leads, deals, catalog items, call sessions and sequences, beside the contacts of `spine.directory`."""
