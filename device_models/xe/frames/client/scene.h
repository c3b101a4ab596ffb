/* What the renderer draws: a lit cube that turns with the frame's number before a background. */
#ifndef SCENE_H
#define SCENE_H

void scene_open(void);
/* Into the framebuffer that is bound, its first row in memory at the top; `hue` chooses the background. */
void scene_draw(unsigned frame, int width, int height, unsigned hue);

#endif
