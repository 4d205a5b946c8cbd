/* model/c.h -- C that C++ spells in another way; included last before shipped files. No C++ may follow but a model's own. */
#ifndef MODEL_C_H
#define MODEL_C_H

#include "model/run.h"

#define class klass
#define _Static_assert static_assert
#define _Thread_local thread_local

#endif
