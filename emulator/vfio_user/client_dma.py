"""Memory that a client offers for DMA: by descriptor, or by answering the server's DMA_READ and DMA_WRITE."""

from __future__ import annotations

import os
from errno import EFAULT, EINVAL, EPERM

from vfio_user_xe.emulator.model.memory import Memory
from vfio_user_xe.emulator.vfio_user import wire
from vfio_user_xe.emulator.vfio_user.client_connection import Message, encode
from vfio_user_xe.emulator.vfio_user.client_requests import RequestError, Requests
from vfio_user_xe.emulator.vfio_user.client_resources import DmaMapping

READ_WRITE = wire.DMA_READABLE | wire.DMA_WRITABLE


class Dma(Requests):
    """The part of `Client` that offers memory."""

    def __init__(self, path: str | os.PathLike[str], timeout: float) -> None:
        super().__init__(path, timeout)
        self.mappings: list[DmaMapping] = []
        self.dma_handler = self.answer_dma

    def close(self) -> None:
        """As `Requests.close`, and give back the memory that was offered."""
        super().close()
        for mapping in self.mappings:
            mapping.close()
        self.mappings.clear()

    def map_memory(
        self, address: int, size: int, *, flags: int = READ_WRITE, shared: bool = True, memory: Memory | None = None
    ) -> DmaMapping:
        """Offer `size` bytes of memory at DMA address `address`; its content is the result's `view`.

        `shared` gives the server the descriptor; otherwise it has to ask by messages, which this client answers.
        Without `memory` it is made here, and given back when the client closes.
        """
        backing = memory or Memory(size, "client memory")
        mapping = DmaMapping(address, size, flags, backing.view[:size], shared, None if memory else backing)
        # Known before the server is told: a request for it may come before the reply does.
        self.mappings.append(mapping)
        try:
            self.dma_map(address, size, flags=flags, fd=backing.fd if shared else None)
        except BaseException:
            self.mappings.remove(mapping)
            mapping.close()
            raise
        return mapping

    def unmap_memory(self, mapping: DmaMapping) -> None:
        """Take back what `map_memory` offered."""
        self.dma_unmap(mapping.address, mapping.size)
        self.mappings.remove(mapping)
        mapping.close()

    def dma_map(
        self, address: int, size: int, *, flags: int = READ_WRITE, fd: int | None = None, offset: int = 0
    ) -> None:
        """Announce `[address, address + size)`, with or without a descriptor, and nothing else."""
        body = wire.DMA_MAP_BODY.pack(wire.DMA_MAP_BODY.size, flags, offset, address, size)
        self._fixed(wire.DMA_MAP, body, () if fd is None else (fd,))

    def dma_unmap(self, address: int, size: int, flags: int = 0) -> None:
        """Take a range back. `wire.DMA_UNMAP_ALL` in `flags`, with address and size 0, means everything."""
        body = wire.DMA_UNMAP_BODY.pack(wire.DMA_UNMAP_BODY.size, flags, address, size)
        self._fixed(wire.DMA_UNMAP, body)

    def answer_dma(self, message: Message) -> bytes:
        """The reply message to one DMA_READ or DMA_WRITE of the server, from what `map_memory` offered."""
        try:
            body = self._dma_body(message)
        except RequestError as exc:
            flags = wire.TYPE_REPLY | wire.FLAG_ERROR
            return encode(message.command, message_id=message.id, flags=flags, error=exc.errno)
        return encode(message.command, body, message_id=message.id, flags=wire.TYPE_REPLY)

    def _dma_body(self, message: Message) -> bytes:
        command, header = message.command, wire.DMA_ACCESS
        if command not in (wire.DMA_READ, wire.DMA_WRITE) or len(message.body) < header.size:
            raise RequestError(EINVAL, command)
        address, count = header.unpack_from(message.body)
        data = message.body[header.size :]
        if len(data) != (count if command == wire.DMA_WRITE else 0):
            raise RequestError(EINVAL, command)
        for mapping in list(self.mappings):
            if mapping.contains(address, count) and mapping.view is not None:
                break
        else:
            raise RequestError(EFAULT, command)
        if command == wire.DMA_READ:
            if not mapping.flags & wire.DMA_READABLE:
                raise RequestError(EPERM, command)
            return header.pack(address, count) + mapping.at(address, count)
        if not mapping.flags & wire.DMA_WRITABLE:
            raise RequestError(EPERM, command)
        mapping.at(address, count)[:] = data
        return header.pack(address, count)
