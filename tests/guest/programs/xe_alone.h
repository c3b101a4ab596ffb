/* SPDX-License-Identifier: MIT */
/* Programs over the xe uAPI that report something else than checks. */
#ifndef XE_ALONE_H
#define XE_ALONE_H

/* Make the function at this PCI address, such as 0000:03:00.0, the device under test; ends the process without it. */
void choose_function(const char *pci);

#endif
