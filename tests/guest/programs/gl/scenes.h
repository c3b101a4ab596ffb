/* What scenes are made of. */
#ifndef SCENES_H
#define SCENES_H

#include "gl.h"

enum { SIZE = 128 };

struct scene {
	const char *name; /* NULL behind the last */
	void (*draw)(void);
};

/* Scenes of textures and of stages between vertices and pixels. */
extern const struct scene stage_scenes[];

void clear(void);
/* A new buffer as an attribute of `size` floats a vertex. */
void attribute(GLuint index, int size, const float *data, int bytes);

#endif
