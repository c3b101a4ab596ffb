/* The compositor's picture: a background, and of each source a window with a border. */
#ifndef WINDOWS_H
#define WINDOWS_H

#include "gl.h"

#include <stdbool.h>

/* What a window shows: a texture whose first row is the top one; 0: nothing. */
struct window {
	GLuint texture;
	int width, height;
};

void windows_open(int width, int height);
/* Draws all of them, side by side, the first at the left. */
void windows_draw(const struct window *windows, unsigned count);
/* Draws with a texture of its own: a driver keeps what it has drawn with last until it draws with something else. */
void windows_let_go(void);

#endif
