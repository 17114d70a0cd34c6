"""Reading a model: facts about it, and the one verb that runs it."""
