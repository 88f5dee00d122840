"""What runs beside requests: comparing answers of shadows, telling the store what was found."""
