"""The shell around rain and runoff: live rain, models in their processes, studies."""
