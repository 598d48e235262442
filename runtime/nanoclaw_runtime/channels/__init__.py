"""How chats reach us and answers reach them. A channel carries texts and owns no rule about them."""
