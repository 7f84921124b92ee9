"""A small SDN controller: watches mcastd routers for new sources, and programs shortest-path trees to who wants them."""
