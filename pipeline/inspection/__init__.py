"""`stockpot inspect`: one artifact or record in readable form."""
