"""lua: tables, coroutines, string building, patterns and weak tables, collected incrementally and by
generations."""
PACKAGES = ("lua5.4",)
NEEDS = ("lua5.4",)
PROVEN = ("lua5.4",)

SCRIPT = r"""
local function hash(s)
    local h = 5381
    for i = 1, #s, 7 do h = (h * 33 + s:byte(i)) & 0xffffffff end
    return h
end
local function round(mode)
    collectgarbage(mode)
    local words = {}
    for i = 1, 100000 do
        local w = "word" .. (i * 7919 % 20011)
        words[w] = (words[w] or 0) + 1
    end
    local keys = {}
    for k in pairs(words) do keys[#keys + 1] = k end
    table.sort(keys)
    print(mode, #keys, hash(table.concat(keys, ",")))
    local parts = {}
    for i = 1, 30000 do parts[#parts + 1] = string.format("%d:%s;", i, ("z"):rep(i % 50)) end
    local text = table.concat(parts)
    local changed, n = text:gsub("(%d+):zzz;", "<%1>")
    print(#text, #changed, n, hash(changed))
    local growing = ""
    for i = 1, 2500 do growing = growing .. i .. "," end
    print(#growing, hash(growing))
    local makers = {}
    for n = 1, 300 do
        makers[n] = coroutine.wrap(function()
            for i = 1, 40 do coroutine.yield(("m%d-%d"):format(n, i):rep(i)) end
        end)
    end
    local total = 0
    for _ = 1, 40 do for n = 1, 300 do total = total + #makers[n]() end end
    print(total)
    local weak, kept = setmetatable({}, { __mode = "v" }), {}
    for i = 1, 40000 do
        local t = setmetatable({ i, tostring(i), { i } }, { __gc = function() end })
        weak[i] = t
        if i % 10 == 0 then kept[#kept + 1] = t end
    end
    collectgarbage() collectgarbage()
    local alive = 0
    for _ in pairs(weak) do alive = alive + 1 end
    print(#kept, alive)
    local grid = {}
    for i = 1, 300 do grid[i] = {} for j = 1, 300 do grid[i][j] = i * j % 17 end end
    local sum = 0
    for i = 1, 300 do for j = 1, 300 do sum = sum + grid[i][j] * grid[j][i] end end
    print(sum)
end
round("incremental")
round("generational")
"""


def work(run):
    return run.call("lua5.4", run.write("script.lua", SCRIPT))
