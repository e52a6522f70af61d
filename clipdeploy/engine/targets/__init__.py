"""What is known of the devices and products that engines are built for, as tables; each row with its source."""
