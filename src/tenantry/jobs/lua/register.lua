-- queue, share, queue, share, …
for index = 1, #ARGV, 2 do
    redis.call('HSET', SHARES, ARGV[index], ARGV[index + 1])
    touch(ARGV[index])
end
return 1
