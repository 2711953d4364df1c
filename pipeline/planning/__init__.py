"""What a recipe says, which artifacts it asks for, and what building them would take: nothing is
built here.
"""
