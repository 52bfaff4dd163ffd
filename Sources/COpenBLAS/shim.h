// The declarations alone: the library is opened at run time, by those who need it.
#include <cblas.h>
