"""The main job: request, results, fit, prediction, branches."""
