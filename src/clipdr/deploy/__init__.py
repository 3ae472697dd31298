"""Stage `deploy`: networks counted, exported and timed, in the form used for inference."""
