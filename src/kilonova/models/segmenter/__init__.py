"""What a picture shows and where: things, grounds and what a phrase names."""
