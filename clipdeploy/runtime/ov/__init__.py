"""What the OpenVINO session stands on: the library, its devices, and graphs rewritten into a form that it runs fast."""
