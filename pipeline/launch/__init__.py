"""The launcher: check the request, claim the directory, run the job."""
