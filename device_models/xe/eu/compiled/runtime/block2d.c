/* Untyped 2-D blocks: rows of a matrix in memory, by compute/block2d.py, which has the layout of payload and registers. */
#include "memory.h"

enum { WIDEST = 256, TRANSPOSE = 1, VNNI = 2 };

struct block2d {
    uint64_t base;
    int64_t pitch, x, y; /* of the first element */
    int64_t bytes_wide, rows_high; /* of the matrix */
    int width, height, count, size;
    int down, across; /* elements of a block in registers, padded */
    int64_t block_bytes;
};

static int power_of_two(int number)
{
    return number < 2 ? 1 : 1 << (32 - __builtin_clz(number - 1));
}

/* `offset` of the message: x in the low half, y in the high one, both signed; `atomic`: TRANSPOSE, VNNI. */
static struct block2d block_of(const struct thread *t, const struct op *op, const struct message *m)
{
    uint32_t words[8];
    memcpy(words, at(t, op->source[0]), sizeof words);
    struct block2d b = {
        .base = words[0] | (uint64_t)words[1] << 32,
        .pitch = (int64_t)words[4] + 1,
        .x = (int64_t)(int32_t)words[5] + (int32_t)m->offset,
        .y = (int64_t)(int32_t)words[6] + (int32_t)(m->offset >> 32),
        .bytes_wide = (int64_t)words[2] + 1,
        .rows_high = (int64_t)words[3] + 1,
        .width = (words[7] & 0xff) + 1,
        .height = (words[7] >> 8 & 0xff) + 1,
        .count = (words[7] >> 16 & 0xf) + 1,
        .size = m->data_bytes,
    };
    const int packed = 4 / b.size > 1 ? 4 / b.size : 1;
    if (m->atomic & TRANSPOSE) {
        b.across = power_of_two(b.height);
        b.down = b.width;
    } else if (m->atomic & VNNI) {
        b.across = power_of_two(power_of_two(b.width) * packed);
        b.down = (b.height + packed - 1) / packed;
    } else {
        b.across = power_of_two(b.width);
        b.down = b.height;
    }
    b.block_bytes = ((int64_t)b.across * b.down * b.size + 63) / 64 * 64;
    return b;
}

/* Bytes from the first register to an element. */
static int64_t place_of(const struct block2d *b, int how, int block, int row, int column)
{
    const int packed = 4 / b->size > 1 ? 4 / b->size : 1;
    int64_t place;
    if (how & TRANSPOSE)
        place = (int64_t)column * b->across + row;
    else if (how & VNNI)
        place = (int64_t)(row / packed) * power_of_two(b->width) * packed + column * packed + row % packed;
    else
        place = (int64_t)row * b->across + column;
    return block * b->block_bytes + place * b->size;
}

/* The columns [*first, *end) of a block's row that are in the matrix, and the address of the first. */
static int inside(const struct block2d *b, int block, int row, int *first, int *end, uint64_t *address)
{
    const int64_t x = b->x + (int64_t)block * b->width, y = b->y + row;
    if (y < 0 || y >= b->rows_high)
        return 0;
    const int64_t columns = b->bytes_wide / b->size;
    const int64_t from = x < 0 ? -x : 0, to = columns - x < b->width ? columns - x : b->width;
    if (from >= to)
        return 0;
    *first = (int)from;
    *end = (int)to;
    *address = (b->base + (uint64_t)(y * b->pitch + (x + from) * b->size)) & ADDRESS_MASK;
    return 1;
}

static const struct op *blocks(const struct op *op, struct thread *t, int access)
{
    const struct message *m = op->extra;
    if (!(enabled(op, t) & 1))
        return op + 1;
    if (unlikely(!t->slot))
        return stop(op, t, INTERPRET);
    const struct block2d b = block_of(t, op, m);
    int first, end;
    uint64_t address;
    for (int block = 0; block < b.count; block++)
        for (int row = 0; row < b.height; row++)
            if (inside(&b, block, row, &first, &end, &address)
                && !eu_reach(op, t, address, (uint32_t)(end - first) * b.size, access))
                return NULL;
    char *registers = access == READ ? t->storage + op->destination : at(t, m->data);
    if (access == READ)
        memset(registers, 0, m->returns ? m->response : 0);
    char elements[WIDEST * 8];
    for (int block = 0; block < b.count; block++)
        for (int row = 0; row < b.height; row++) {
            if (!inside(&b, block, row, &first, &end, &address))
                continue;
            const uint32_t bytes = (uint32_t)(end - first) * b.size;
            if (access == READ)
                eu_copy(t, m, address, elements, bytes, READ);
            for (int column = first; column < end; column++) {
                const int64_t place = place_of(&b, m->atomic, block, row, column);
                char *element = elements + (column - first) * b.size;
                const int there = place + b.size <= m->response;
                if (access == READ && m->returns && there)
                    memcpy(registers + place, element, b.size);
                else if (access == WRITE && there)
                    memcpy(element, registers + place, b.size);
                else if (access == WRITE)
                    memset(element, 0, b.size);
            }
            if (access == WRITE)
                eu_copy(t, m, address, elements, bytes, WRITE);
        }
    return op + 1;
}

const struct op *message_load_block2d(const struct op *op, struct thread *t)
{
    return blocks(op, t, READ);
}

const struct op *message_store_block2d(const struct op *op, struct thread *t)
{
    return blocks(op, t, WRITE);
}
